"""Chat templates that do not parse or have no generation prompt are rejected by validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflows.spec.chat_template import find_error

CASE = Path(__file__).parents[2] / "data" / "cases" / "03-chat-template-preview"
TURN = "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("workspace", 0, ""),
        ("broken-template", 2, "ModelConfig.chat_template: line 1 does not parse"),
        ("no-generation-prompt", 2, "ModelConfig.chat_template: has no generation prompt"),
    ],
)
def test_validate(argotune: Any, name: str, code: int, message: str) -> None:
    done = argotune("validate", CASE / f"{name}.yaml")
    assert (done.returncode, message in done.stderr) == (code, True)
    assert not code or (f"{name}.yaml:29: " in done.stderr and "fix: " in done.stderr)


@pytest.mark.parametrize(
    "template",
    [
        f"{{% for m in messages %}}{TURN}{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}",
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{{ raise_exception('roles') }}",
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{{ unknown.a.b }}{% endfor %}",
    ],
)
def test_accepted(template: str) -> None:
    assert find_error(template) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "does not parse"),
        ("{{ messages | no_such_filter }}", "does not parse"),
        (f"{{% for m in messages %}}{TURN}{{% endfor %}}", "answers begin with '<|assistant|>'"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "of assistant messages"),
    ],
)
def test_rejected(template: str, message: str) -> None:
    error = find_error(template)
    assert error and message in error[0] and error[1]
