"""Fine-tune a LLaVA on conversations: LLaVA's 665k mixture, ShareGPT4V, or your own in LLaVA's JSON form.

Rows may have several turns, several conversations about one picture, or no picture at all. A large
mixture is prepared once:

    python scripts/prepare_data.py llava_json --annotations playground/data/llava_v1_5_mix665k.json \
        --images playground/data --split train --path bad_rows=bad_rows.jsonl --out data/mix665k
    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/sft_instruct.py \
        --config recipes/configs/instruct_lora_7b.yaml

A few thousand rows are read as they are: `--source llava_json --data_dir FOLDER`.
"""

from hf_llava_vqa.errors import cli
from hf_llava_vqa.training import make_trainer, parse_recipe_args, save_results


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args(source="llava_json", train_sampling_strategy="group_by_length")
    trainer = make_trainer(data_args, config, model_args)
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    save_results(trainer, data_name=data_args.source)


if __name__ == "__main__":
    main()
