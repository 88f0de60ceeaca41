"""Publish an adapter on the Hugging Face Hub, with its processor, card and recipe; checkpoints and logs stay here.

    python scripts/push_adapter.py runs/vizwiz_lora_7b --repo user/llava-1.5-7b-vizwiz-lora

Log in once before, with `hf auth login`, or set HF_TOKEN. Anybody loads it with
`LlavaForConditionalGeneration.from_pretrained("user/llava-1.5-7b-vizwiz-lora")`.
"""

import argparse
from pathlib import Path

from hf_llava_vqa.errors import cli
from hf_llava_vqa.hub import push_adapter
from hf_llava_vqa.training.publishing import PUBLISHED


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="the output folder of a recipe")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="the model repository")
    parser.add_argument("--private", action="store_true", help="only for you, if the repository is new")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    print(push_adapter(args.adapter, args.repo, files=PUBLISHED, private=args.private))


if __name__ == "__main__":
    main()
