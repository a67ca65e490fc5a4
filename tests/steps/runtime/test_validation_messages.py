from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from steps.runtime import validation_messages


@pytest.mark.parametrize(
    ("kind", "value", "message", "fix"),
    [
        (Annotated[float, Field(gt=0)], 0, "must be greater than 0, not 0", "write a number above 0"),
        (Annotated[float, Field(ge=0.5)], -1, "must be greater than or equal to 0.5, not -1",
         "write a number of at least 0.5"),
        (Annotated[int, Field(lt=8)], 8, "must be less than 8, not 8", "write a number below 8"),
        (Annotated[float, Field(le=1)], 2, "must be less than or equal to 1, not 2", "write a number of at most 1"),
        (Literal["mig", "accelerator"], "migs", "must be 'mig' or 'accelerator', not 'migs'", "did you mean mig?"),
        (Literal["mig", "accelerator"], 7, "must be 'mig' or 'accelerator', not 7", "write mig or accelerator"),
        (int, "many", "must be an integer, not 'many'", "write an integer"),
        (bool, "perhaps", "must be true or false, not 'perhaps'", "write true or false"),
        (list[int], "1", "must be a list, not '1'", "write a list"),
    ],
)  # fmt: skip
def test_a_wrong_value_has_a_message_and_a_fix(kind: Any, value: Any, message: str, fix: str):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(value)
    details = error.value.errors()[0]
    assert validation_messages.describe(details) == message
    assert validation_messages.fix(details) == fix
