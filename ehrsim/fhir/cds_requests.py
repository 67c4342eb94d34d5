"""The request of a CDS Hooks call, as models: what a fixture is made of, and what its JSON Schema is written from.

Source: CDS Hooks 2.0 (HL7, CC BY 4.0), "Calling a CDS Service", and the definitions of four hooks: patient-view,
order-select, order-sign and encounter-discharge.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

_ID = r"[A-Za-z0-9\-.]{1,64}"
_ORDERS = ("DeviceRequest", "MedicationRequest", "NutritionOrder", "ServiceRequest", "VisionPrescription")
_RESOURCE = {"required": ["resourceType"], "properties": {"resourceType": {"type": "string", "pattern": "^[A-Z]"}}}


def _bundle_of(**order: Any) -> dict[str, Any]:
    """The schema of a Bundle of orders whose members are as said."""
    properties = {"resourceType": {"enum": list(_ORDERS)}, "id": {"type": "string", "pattern": f"^{_ID}$"}, **order}
    resource = {"type": "object", "required": ["resourceType", "id", "status"], "properties": properties}
    entry = {"type": "object", "required": ["resource"], "properties": {"resource": resource}}
    entries = {"type": "array", "minItems": 1, "items": entry}
    return {
        "required": ["resourceType", "entry"],
        "properties": {"resourceType": {"const": "Bundle"}, "entry": entries},
    }


Id = Annotated[str, Meta(pattern=f"^{_ID}$")]
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Clinician = Annotated[str, Meta(pattern=f"^(Practitioner|PractitionerRole)/{_ID}$")]
User = Annotated[str, Meta(pattern=f"^(Practitioner|PractitionerRole|Patient|RelatedPerson)/{_ID}$")]
Order = Annotated[str, Meta(pattern=f"^({'|'.join(_ORDERS)})/{_ID}$")]
Url = Annotated[str, Meta(pattern="^https?://[^/?#]+")]
Resource = Annotated[dict[str, Any], Meta(extra_json_schema=_RESOURCE)]
Drafts = Annotated[dict[str, Any], Meta(extra_json_schema=_bundle_of(status={"const": "draft"}))]
SignedOrders = Annotated[dict[str, Any], Meta(extra_json_schema=_bundle_of(status={"type": "string"}))]


class _Part(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    extension: dict[str, Any] | UnsetType = UNSET


class PatientView(_Part, kw_only=True):
    """The record of a patient was opened."""

    user_id: User
    patient_id: Id
    encounter_id: Id | UnsetType = UNSET


class OrderSelect(_Part, kw_only=True):
    """Orders were selected: `selections` names them among the unsigned orders of the session."""

    user_id: Clinician
    patient_id: Id
    encounter_id: Id | UnsetType = UNSET
    selections: Annotated[list[Order], Meta(min_length=1)]
    draft_orders: Drafts


class OrderSign(_Part, kw_only=True):
    """Orders are about to be signed; the specification lets orders that are signed again be no drafts any more."""

    user_id: Clinician
    patient_id: Id
    encounter_id: Id | UnsetType = UNSET
    draft_orders: SignedOrders


class EncounterDischarge(_Part, kw_only=True):
    """A patient is being discharged."""

    user_id: Clinician
    patient_id: Id
    encounter_id: Id


class FhirAuthorization(msgspec.Struct, kw_only=True):
    """An access token of the server; a part of the request's shape that fixtures never have."""

    access_token: str
    token_type: Annotated[str, Meta(pattern="^Bearer$")]
    expires_in: int
    scope: str
    subject: str
    patient: Id | UnsetType = UNSET


class _Request(_Part, kw_only=True, tag_field="hook"):
    hook_instance: Uuid
    fhir_server: Url | UnsetType = UNSET
    fhir_authorization: FhirAuthorization | UnsetType = UNSET
    prefetch: dict[str, Resource | None] | UnsetType = UNSET


class PatientViewRequest(_Request, kw_only=True, tag="patient-view"):
    """A call of the hook `patient-view`."""

    context: PatientView


class OrderSelectRequest(_Request, kw_only=True, tag="order-select"):
    """A call of the hook `order-select`."""

    context: OrderSelect


class OrderSignRequest(_Request, kw_only=True, tag="order-sign"):
    """A call of the hook `order-sign`."""

    context: OrderSign


class EncounterDischargeRequest(_Request, kw_only=True, tag="encounter-discharge"):
    """A call of the hook `encounter-discharge`."""

    context: EncounterDischarge


Request = PatientViewRequest | OrderSelectRequest | OrderSignRequest | EncounterDischargeRequest


def request_schema() -> dict[str, Any]:
    """The JSON Schema of a request; an authorization asks for the server that it is of."""
    schema: dict[str, Any] = msgspec.json.schema(Request)
    for definition in schema["$defs"].values():
        if "hook" in definition.get("properties", {}):
            definition["dependentRequired"] = {"fhirAuthorization": ["fhirServer"]}
    return schema
