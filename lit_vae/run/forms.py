"""What files of plain values must hold: checked where they are read, so that an error names the file and the key."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_MOST_SHOWN = 3


class Form(BaseModel):
    """Keys of a file and the types of their values. Other keys are left alone; numbers must be finite."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def fitting(content: Any, form: type[Form], path: Path) -> dict[str, Any]:
    """The content itself, if it has that form.

    Raises:
        ValueError: naming the file, the keys and what they hold.
    """
    try:
        form.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        shown = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'} (={each['input']!r:.60}): {each['msg']}"
            for each in found[:_MOST_SHOWN]
        ]
        more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        raise ValueError(f"{path}: {'; '.join(shown)}{more}. Put the right file back, or make it anew.") from error
    return content
