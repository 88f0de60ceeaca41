"""Fine-tune a LLaVA on VizWiz questions with LoRA or DoRA.

On the CPU, with the demo's data and model:

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft_vizwiz.py \
        --config recipes/configs/demo_cpu.yaml

On eight A100s, with the files as VizWiz publishes them:

    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/sft_vizwiz.py \
        --config recipes/configs/vizwiz_lora_7b.yaml --data_dir /data/vizwiz
"""

from hf_llava_vqa.errors import cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(source="vizwiz")
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
