"""Train the projector between a CLIP tower and a language model, everything else frozen: LLaVA's first stage.

On eight A100s, with LLaVA's 558k captions as a prepared set (`scripts/prepare_data.py llava_json`):

    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/pretrain_projector.py \
        --config recipes/configs/pretrain_llava15_7b.yaml

The output folder holds the projector and what it was trained between. A recipe of the second stage begins with it:
`--language_model X --vision_tower Y --pretrained_projector OUTPUT_DIR`.
"""

from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(trainable="projector")
    if model_args.trainable != "projector":
        raise ConfigError(
            f"--trainable {model_args.trainable}: this recipe trains the projector and nothing else; leave it out"
        )
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
