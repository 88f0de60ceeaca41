"""Convert checkpoints of LLaVA's, SQ-LLaVA's and DoRA's own code into ours, or back with `--to original`.

A whole model, to be named as --model_name_or_path:

    python scripts/convert_checkpoint.py downloads/llava-v1.5-7b --out models/llava-1.5-7b

An adapter (LoRA, DoRA, SQ-LLaVA's with its Vit-lora), or a projector by itself:

    python scripts/convert_checkpoint.py downloads/llava-v1.5-7b-lora --out models/llava-1.5-7b-lora
    python scripts/convert_checkpoint.py downloads/mm_projector.bin --out models/projector \\
        --language_model lmsys/vicuna-7b-v1.5 --vision_tower openai/clip-vit-large-patch14-336

Back, for LLaVA's own code:

    python scripts/convert_checkpoint.py runs/vizwiz_lora_7b --out runs/vizwiz_lora_7b_original --to original \\
        --vision_tower openai/clip-vit-large-patch14-336
"""

import argparse
from pathlib import Path

from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.models.conversion import to_original, to_ours


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a model or an adapter, or an mm_projector.bin")
    parser.add_argument("--out", required=True, type=Path, help="folder for the result; it must not exist yet")
    parser.add_argument("--to", choices=("ours", "original"), default="ours", help="layout to write (default: ours)")
    parser.add_argument("--model_name_or_path", help="a LLaVA of ours that an adapter or a projector was trained on")
    parser.add_argument("--language_model", help="or the language model it was trained on (default: what it names)")
    parser.add_argument("--vision_tower", help="CLIP of the model (default: what its configuration names)")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    if args.to == "ours":
        bases = {name: getattr(args, name) for name in ("model_name_or_path", "language_model", "vision_tower")}
        to_ours(args.source, args.out, **bases)
    elif args.model_name_or_path or args.language_model:
        raise ConfigError("--to original reads the base that the source names; leave out the flags that name another")
    else:
        to_original(args.source, args.out, vision_tower=args.vision_tower)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
