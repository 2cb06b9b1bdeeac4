"""A request's query → a checked model, or the 422 that says what is wrong with it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandboxes.errors import InvalidField, Unprocessable

if TYPE_CHECKING:
    from multidict import MultiMapping

Query = TypeVar("Query", bound=BaseModel)


class WaitQuery(BaseModel):
    """The query of `GET /api/sandboxes/{id}`. `wait_seconds`: how long the answer may be waited for."""

    model_config = ConfigDict(frozen=True)

    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def parsed(model: type[Query], query: MultiMapping[str], *, repeated: frozenset[str] = frozenset()) -> Query:
    """Return the parameters that the model knows; others are ignored, as unknown fields of a body are.

    `repeated`: those that may be given more than once. Raises Unprocessable, with loc ["query", name], for a value that
    can't be, and for another parameter that is given twice: no one can tell which is meant.
    """
    given: dict[str, object] = {}
    for name in query.keys() & model.model_fields.keys():
        values = query.getall(name)
        given[name] = values if name in repeated or len(values) > 1 else values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Unprocessable(
            [
                InvalidField(type=item["type"], loc=["query", item["loc"][0]], msg=item["msg"], input=item["input"])
                for item in error.errors(include_url=False)
            ]
        ) from error
