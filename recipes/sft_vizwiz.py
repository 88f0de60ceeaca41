"""Fine-tune a LLaVA on VizWiz questions with LoRA or DoRA.

On the CPU, with the demo's data and model:

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft_vizwiz.py \
        --config recipes/configs/demo_cpu.yaml

On eight A100s, with the files as VizWiz publishes them:

    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/sft_vizwiz.py \
        --config recipes/configs/vizwiz_lora_7b.yaml --data_dir /data/vizwiz
"""

from itertools import islice

from hf_llava_vqa.errors import cli
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.training import VqaTrainer, load_training_data, parse_recipe_args, training_collator
from hf_llava_vqa.training.training_recipe import save_training_recipe


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args()

    # Data first: a mistake there should cost seconds, not the time to load a model.
    train, held_out = load_training_data(data_args)
    processor = training_processor(model_args, image_aspect=config.image_aspect, template=config.template)
    collator = training_collator(config, processor)
    collator(list(islice(train, config.per_device_train_batch_size)))  # a first batch, to see that one can be made

    trainer = VqaTrainer(
        training_model(model_args),
        config,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        data_collator=collator,
        peft_config=lora_config(model_args),
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)

    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card(dataset_name=data_args.source)
    if trainer.is_world_process_zero():
        save_training_recipe(trainer, config.output_dir)
    if config.push_to_hub:
        trainer.push_to_hub(dataset_name=data_args.source)


if __name__ == "__main__":
    main()
