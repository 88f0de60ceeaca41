"""Fine-tune a LLaVA that also learns to ask: SQ-LLaVA's second stage, or self-questioning on your own data.

On eight A100s, with the 665k mixture as scripts/prepare_data.py writes it and the projector of
recipes/pretrain_projector.py:

    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/sft_self_questioning.py \
        --config recipes/configs/sq_llava_7b.yaml

On VizWiz, whose questions stand alone, from a LLaVA that is there already:

    accelerate launch --config_file accelerate_configs/gpu_1.yaml recipes/sft_self_questioning.py \
        --source vizwiz --data_dir data/vizwiz --model_name_or_path llava-hf/llava-1.5-7b-hf --trainable lora
"""

from hf_llava_vqa.errors import cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(source="llava_json", template="v1_sq", self_question_ratio=0.5)
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
