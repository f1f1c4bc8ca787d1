"""What both kinds share: bounded strings and numbers, references, storage, tracking, conditions."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints, WithJsonSchema

from lakeloop.api.v1alpha1.base import ATOMIC, CEL_RULES, ApiModel, default_text, list_map, rule, rules

MAX_NAME = 40
"""Longest name of a resource, in characters, so that children's names fit into 63."""

S3_URI = r"^s3a://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+$"

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253),
]
ViewName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
S3Uri = Annotated[str, StringConstraints(pattern=S3_URI, max_length=1024)]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+\.[A-Za-z0-9_]+$", max_length=255)]
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"


def _with_a_port(url: str) -> str:
    if urlsplit(url).port == 0:
        raise ValueError("0 is no port")
    return url


Endpoint = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https?://({_HOST}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?(/[A-Za-z0-9._~/-]*)?$", max_length=512
    ),
    AfterValidator(_with_a_port),
    Field(
        json_schema_extra={
            CEL_RULES: [
                rule(
                    "!isURL(self) || url(self).getPort() == ''"
                    " || (int(url(self).getPort()) > 0 && int(url(self).getPort()) < 65536)",
                    "write http:// or https://, a host, and a port from 1 to 65535 where it is another than usual",
                )
            ]
        }
    ),
]
"""Where a store answers. Neither a user name nor a password has a place in it."""
Image = Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_. -]*[A-Za-z0-9_])?$", max_length=250)]
Alias = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=100),
    Field(
        json_schema_extra={
            CEL_RULES: [
                rule(
                    "!self.matches('^(?i)(latest|v[0-9]+)$')",
                    "MLflow keeps `latest` and `v<number>` for itself: write another alias, such as champion",
                )
            ]
        }
    ),
]
MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./ -]+$", max_length=128)]
Text = Annotated[str, StringConstraints(max_length=4096)]
TagValue = Annotated[str, StringConstraints(max_length=1024)]
Tags = Annotated[Mapping[str, TagValue], Field(max_length=32)]
OwnTags = Annotated[
    Mapping[str, TagValue],
    Field(
        max_length=32,
        json_schema_extra={
            CEL_RULES: [
                rule(
                    "self.all(key, !key.startsWith('lakeloop.io/'))",
                    "tags that begin with lakeloop.io/ are Lakeloop's own: write another name",
                )
            ]
        },
    ),
]
"""Tags in MLflow, beside Lakeloop's own."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
PositiveSeconds = Annotated[int, Field(ge=1, le=31_536_000)]
Time = AwareDatetime
"""A moment with a time zone; RFC 3339 on the wire."""


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _quantity(pattern: str) -> Any:
    # Kubernetes takes a bare number for a quantity, so that `cpu: 1` need not be quoted.
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": pattern,
            "maxLength": 32,
        }
    )


CPU_QUANTITY = r"^([1-9][0-9]*m|[1-9][0-9]*(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])$"
MEMORY_QUANTITY = r"^[1-9][0-9]*(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
ANY_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"

CpuQuantity = Annotated[
    str, StringConstraints(pattern=CPU_QUANTITY, max_length=32), BeforeValidator(_as_text), _quantity(CPU_QUANTITY)
]
"""CPU as Kubernetes writes it: `250m`, `1`, `0.5`."""
MemoryQuantity = Annotated[
    str,
    StringConstraints(pattern=MEMORY_QUANTITY, max_length=32),
    BeforeValidator(_as_text),
    _quantity(MEMORY_QUANTITY),
]
"""Memory as Kubernetes writes it: `1Gi`, `400Mi`."""
AnyQuantity = Annotated[
    str, StringConstraints(pattern=ANY_QUANTITY, max_length=32), BeforeValidator(_as_text), _quantity(ANY_QUANTITY)
]

PRESERVE: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
FreeForm = Annotated[Mapping[str, Any], WithJsonSchema(PRESERVE)]
"""An object whose fields are not ours to know."""
FreeValue = Annotated[Any, WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True})]
"""Any JSON value."""
Overlay = FreeForm
"""A partial PodTemplateSpec, merged strategically onto what the operator renders."""


class SecretReference(ApiModel):
    """A Secret in the object's own namespace."""

    name: ObjectName | None = Field(default=None, description="Name of the Secret.")


class CaSecretReference(ApiModel):
    """A Secret in the object's own namespace that holds certificates."""

    name: ObjectName | None = Field(default=None, description="Name of the Secret.")
    key: ObjectName | None = Field(default=None, description="Key in the Secret that holds the PEM bundle.")


class KeySelector(ApiModel):
    """One key of a Secret or ConfigMap in the object's own namespace."""

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = Field(description="The key.")
    optional: bool | None = Field(default=None, description="Whether the pod may start without it.")


class FieldSelector(ApiModel):
    """One field of the pod."""

    field_path: Annotated[str, StringConstraints(max_length=256)] = Field(
        description="Path of the field, such as `metadata.name`."
    )


class EnvVarSource(ApiModel):
    """Where an environment variable's value comes from."""

    model_config = rules(
        rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].filter(it, it).size() == 1",
            "write exactly one of secretKeyRef, configMapKeyRef and fieldRef",
        )
    )

    secret_key_ref: KeySelector | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(default=None, description="A key of a ConfigMap.")
    field_ref: FieldSelector | None = Field(default=None, description="A field of the pod.")


SENSITIVE_NAME = (
    r"(?i)(password|passwd|passphrase|secret|(private|api|access|secret)_?key"
    r"|(auth|access|api|bearer|session|refresh|hf|github|gitlab)_?token)$"
)
"""Names of variables that hold a secret. Not every name that does: a net, not a wall."""
NO_INLINE_VALUE = "no secret as a value: put it into a Secret and name that in valueFrom.secretKeyRef"


class EnvVar(ApiModel):
    """An environment variable."""

    model_config = rules(
        rule("!(has(self.value) && has(self.valueFrom))", "write either value or valueFrom, not both"),
        rule(
            f"!has(self.value) || self.value == '' || !self.name.matches('{SENSITIVE_NAME}')",
            NO_INLINE_VALUE,
            field=".value",
        ),
    )

    name: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=128)] = Field(
        description="Name of the variable."
    )
    value: Text | None = Field(
        default=None, description="Its value. Never a secret: name one with `valueFrom.secretKeyRef`."
    )
    value_from: EnvVarSource | None = Field(default=None, description="Where its value comes from.")


EnvList = Annotated[tuple[EnvVar, ...], Field(max_length=64, json_schema_extra=list_map("name"))]
StringList = Annotated[tuple[Text, ...], Field(max_length=64, json_schema_extra=ATOMIC)]


class Storage(ApiModel):
    """The object store: whose credentials are used, and where it is."""

    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and optionally `AWS_SESSION_TOKEN`. Everything"
            " that is read or written for this object is read or written with these."
        ),
        json_schema_extra=default_text("`{name: lakeloop-storage}`"),
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="Service account of the pods, for workload identity in place of a Secret.",
        json_schema_extra=default_text("one that the operator makes"),
    )
    endpoint: Endpoint | None = Field(
        default=None, description="URL of the S3 API.", json_schema_extra=default_text("the operator's")
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=63)] | None = Field(
        default=None, description="Region to sign for.", json_schema_extra=default_text("the operator's")
    )
    path_style: bool | None = Field(
        default=None,
        description="Whether the bucket goes into the path (MinIO) and not into the host name.",
        json_schema_extra=default_text("the operator's"),
    )
    ca_secret_ref: CaSecretReference | None = Field(
        default=None,
        description="Secret with the certificates that the endpoint's is checked against.",
        json_schema_extra=default_text("the operator's"),
    )
    warehouse: S3Uri | None = Field(
        default=None,
        description="Where `table: db.name` lies: `<warehouse>/db.db/name`.",
        json_schema_extra=default_text("the operator's"),
    )


ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One aspect of the object's state, in the form of `meta/v1.Condition`."""

    type: str = Field(description="What it is about.", max_length=316)
    status: ConditionStatus = Field(description="Whether it holds.")
    observed_generation: int | None = Field(default=None, description="The generation that it was found at.", ge=0)
    last_transition_time: Time | None = Field(default=None, description="When `status` last changed.")
    reason: str = Field(description="CamelCase; part of the API.", max_length=1024)
    message: str = Field(default="", description="For people.", max_length=32768)


Conditions = Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))]
LastHandled = Mapping[str, str]
