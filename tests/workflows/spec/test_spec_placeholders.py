"""Placeholders of documentation and image references with capitals are errors with line and fix."""

import pytest
from workspace_sample import GOOD, INPUT, OTHER_IMAGE, OUTPUT_IMAGE, check_broken, problems, write

from workflows.spec import load, placeholders

TEXTS = {
    "angle": ("<YOUR_ACR>.azurecr.io/a:1", "<YOUR_ACR>"),
    "angle in lower case": ("<your-acr>.azurecr.io/a:1", "<your-acr>"),
    "angle with spaces": ("<YOUR IMAGE URL>", "<YOUR IMAGE URL>"),
    "capitals": ("registry.example.com/YOUR_TEAM/a:1", "YOUR_TEAM"),
    "capitals with hyphens": ("YOUR-ACR.azurecr.io/a:1", "YOUR-ACR"),
    "change me": ("registry.example.com/change-me/a:1", "change-me"),
    "change me in capitals": ("CHANGE_ME", "CHANGE_ME"),
    "host in lower case": ("your-acr.azurecr.io/a:1", "your-acr"),
    "example.com itself": ("example.com/team/a:1", "example.com"),
}


@pytest.mark.parametrize(("image", "word"), TEXTS.values(), ids=TEXTS)
def test_an_image_with_a_placeholder_is_rejected_once(tmp_path, image, word):
    file = write(tmp_path, GOOD.replace(OUTPUT_IMAGE, f'    image: "{image}"\n'))
    [problem] = problems(file)
    assert (problem.path, problem.line) == ("tuning.output.image", 18)
    assert problem.message == f"{word} is a placeholder"
    assert problem.fix == "write the reference of your image"


PLACES = {
    "instance type": ("Standard_NC24ads_A100_v4", "<your-vm-sku>  # <--", "resource.instanceType"),
    "preset": (
        "tuning:\n  preset:\n    name: phi-3-mini-128k-instruct",
        "tuning:\n  preset:\n    name: <MODEL_ID>  # <--",
        "tuning.preset.name",
    ),
    "url": (INPUT, "  input:\n    urls:\n      - https://host.io/YOUR_DATA.parquet  # <--\n", "tuning.input.urls[0]"),
    "push secret": (
        OUTPUT_IMAGE,
        OUTPUT_IMAGE + "    imagePushSecret: <YOUR_ACR_SECRET>  # <--\n",
        "tuning.output.imagePushSecret",
    ),
    "adapter": (OTHER_IMAGE, "        image: <YOUR_IMAGE>  # <--\n", "inference.adapters[0].source.image"),
    "storage class": (
        "pipeline:\n",
        "pipeline:\n  storage: {storageClassName: CHANGE-ME}  # <--\n",
        "pipeline.storage.storageClassName",
    ),
}


@pytest.mark.parametrize(("old", "new", "path"), PLACES.values(), ids=PLACES)
def test_placeholders_of_any_field_are_rejected(tmp_path, old, new, path):
    check_broken(tmp_path, old, new, path, "is a placeholder")


@pytest.mark.parametrize(
    "text",
    [
        "your-team.azurecr.io/a",
        "project: change-me-later",
        "a_change_me",
        "a < b",
        "changement",
        "yours/a",
        "exchange-medium",
        "YOURSELF",
        "example.community/a",
        "registry.example.com/a",
    ],
)
def test_ordinary_text_is_no_placeholder(text):
    assert placeholders.find(text, is_image=True) == ""


def test_free_text_can_contain_anything(tmp_path):
    text = GOOD + '  rollout: {question: "What does <YOUR_NAME> mean? change-me"}\n'
    [manifest] = load(write(tmp_path, text))
    assert "<YOUR_NAME>" in manifest.workspace.pipeline.rollout.question


CAPITALS = {
    "repository": ("registry.example.com/Team/a:1", "repository 'Team/a' has capitals", "'team/a'"),
    "host": (
        "MyAcr.azurecr.io/team/a:1",
        "the registry 'MyAcr.azurecr.io' has capitals",
        "write myacr.azurecr.io/team",
    ),
    "organization": ("Team/a:1", "the registry 'Team' has capitals", "write team/a:1 for an image of Docker Hub"),
}


@pytest.mark.parametrize(("image", "message", "fix"), CAPITALS.values(), ids=CAPITALS)
def test_an_image_reference_with_capitals_is_rejected(tmp_path, image, message, fix):
    file = write(tmp_path, GOOD.replace(OUTPUT_IMAGE, f"    image: {image}\n"))
    [problem] = problems(file)
    assert (problem.path, problem.line) == ("tuning.output.image", 18)
    assert message in problem.message and fix in problem.fix
