"""What recipes share: from parsed arguments to a trainer, and what stands in the output folder after the last step."""

from itertools import islice

from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.models.trainable import VqaModelConfig
from hf_llava_vqa.training.config import DataArguments, VqaConfig
from hf_llava_vqa.training.data import load_training_data
from hf_llava_vqa.training.trainer import VqaTrainer, training_collator
from hf_llava_vqa.training.training_recipe import save_training_recipe


def make_trainer(data_args: DataArguments, config: VqaConfig, model_args: VqaModelConfig) -> VqaTrainer:
    """Load the data, then the model, and prepare what `--trainable` names for training.

    Raises:
        VqaError: whatever is wrong with the data, the flags or the model.
    """
    # Data first: a mistake there should cost seconds, not the time to load a model.
    train, held_out = load_training_data(data_args)
    processor = training_processor(model_args, image_aspect=config.image_aspect, template=config.template)
    collator = training_collator(config, processor)
    collator(list(islice(train, config.per_device_train_batch_size)))  # a first batch, to see that one can be made

    return VqaTrainer(
        training_model(model_args),
        config,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        data_collator=collator,
        peft_config=lora_config(model_args, processor.tokenizer),
    )


def save_results(trainer: VqaTrainer, *, data_name: str) -> None:
    """Write the model, the state, the card and the recipe of a finished run, and publish them if asked to."""
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card(dataset_name=data_name)
    if trainer.is_world_process_zero():
        save_training_recipe(trainer, trainer.args.output_dir)
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=data_name)
