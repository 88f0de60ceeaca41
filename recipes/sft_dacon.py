"""Train a LLaVA for Dacon's image question answering competition: the projector alone, or LoRA.

With `open.zip` of the competition in data/dacon, on one GPU:

    accelerate launch --config_file accelerate_configs/gpu_1.yaml recipes/sft_dacon.py \
        --config recipes/configs/dacon_projector.yaml

A second epoch, on from where the first ended:

    accelerate launch --config_file accelerate_configs/gpu_1.yaml recipes/sft_dacon.py \
        --config recipes/configs/dacon_retrain.yaml
"""

from hf_llava_vqa.errors import cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(source="dacon", trainable="projector")
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
