"""Train the projector between a CLIP tower and a language model, everything else frozen: LLaVA's first stage.

On eight A100s, with LLaVA's 558k captions as a prepared set (`scripts/prepare_data.py llava_json`):

    accelerate launch --config_file accelerate_configs/ddp_8.yaml recipes/pretrain_projector.py \
        --config recipes/configs/pretrain_llava15_7b.yaml

The output folder holds the projector and what it was trained between. A recipe of the second stage begins with it:
`--language_model X --vision_tower Y --pretrained_projector OUTPUT_DIR`.
"""

from itertools import islice

from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.models.projectors.adapter import projector_adapter
from hf_llava_vqa.training import VqaTrainer, load_training_data, parse_recipe_args, training_collator
from hf_llava_vqa.training.training_recipe import save_training_recipe


@cli
def main() -> None:
    data_args, config, model_args = parse_recipe_args()
    if model_args.use_peft:
        raise ConfigError("--use_peft: this recipe trains the projector and nothing else; leave it out")

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
        peft_config=projector_adapter(),
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
