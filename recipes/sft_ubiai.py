"""Fine-tune a LLaVA on documents labelled in UBIAI, with LoRA or in full; then merge and evaluate it.

With the export, train.zip, and a second one to measure with, val.zip, in data/forms:

    accelerate launch --config_file accelerate_configs/gpu_1.yaml recipes/sft_ubiai.py \
        --config recipes/configs/ubiai_lora_7b.yaml
    python scripts/merge_adapter.py runs/ubiai_lora_7b --out runs/ubiai_merged_7b
    python scripts/evaluate.py --model runs/ubiai_merged_7b --benchmark ubiai --data data/forms --split val \
        --out outputs/forms
"""

from hf_llava_vqa.errors import cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(source="ubiai", trainable="lora")
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
