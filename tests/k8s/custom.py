"""Custom resources against the client classes that their projects publish; an unknown field is an error."""

import datetime
import re

SCALARS = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object, "datetime": datetime.datetime}
QUANTITIES = {"ResourceQuantity", "V1beta1MetricQuantity", "V1Time", "KnativeURL"}


def problems(resource):
    """Every wrong or unknown field of a custom resource, with its path; None if no class of its kind is installed."""
    kind = resource["kind"]
    if kind in ("InferenceService", "ServingRuntime"):
        version = "V1beta1" if kind == "InferenceService" else "V1alpha1"
        return list(_walk(resource, f"{version}{kind}", kind))
    if kind in ("TrainingRuntime", "ClusterTrainingRuntime", "TrainJob"):
        from kubeflow_trainer_api import models as trainer

        return _round_trip(resource, getattr(trainer, f"TrainerV1alpha1{kind}"))
    if kind == "Experiment":
        from kubeflow_katib_api import models as katib

        return _round_trip(resource, katib.V1beta1Experiment)
    return None


def _walk(value, typename, path):
    """The generated OpenAPI classes of kserve and kubernetes: `openapi_types` and `attribute_map`."""
    if inner := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", typename):
        if not isinstance(value, list if inner[1] else dict):
            yield f"{path}: {value!r} is no {typename}"
            return
        for key, item in enumerate(value) if inner[1] else value.items():
            yield from _walk(item, inner[1] or inner[2], f"{path}.{key}")
    elif typename in QUANTITIES:
        if not isinstance(value, str | int):
            yield f"{path}: {value!r} is no {typename}"
    elif typename in SCALARS:
        if not isinstance(value, SCALARS[typename]) or (typename == "int" and isinstance(value, bool)):
            yield f"{path}: {value!r} is no {typename}"
    else:
        yield from _walk_object(value, _class(typename), path)


def _walk_object(value, cls, path):
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no {cls.__name__}"
        return
    names = {json_name: name for name, json_name in cls.attribute_map.items()}
    for key, item in value.items():
        if key in names:
            yield from _walk(item, cls.openapi_types[names[key]], f"{path}.{key}")
        else:
            yield f"{path}.{key}: unknown field of {cls.__name__}"


def _class(typename):
    import kserve.models
    import kubernetes.client

    cls = getattr(kserve.models, typename, None) or getattr(kubernetes.client, typename, None)
    assert cls, f"no installed class says what a {typename} may hold"
    return cls


def _round_trip(resource, cls):
    """Pydantic classes refuse wrong types and drop unknown fields: what does not come back was not known."""
    from pydantic import ValidationError

    try:
        returned = cls.from_dict(resource).to_dict()
    except ValidationError as error:
        return [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
    return list(_lost(resource, returned, resource["kind"]))


def _lost(sent, returned, path):
    if isinstance(sent, dict) and isinstance(returned, dict):
        for key, value in sent.items():
            if key not in returned:
                yield f"{path}.{key}: unknown field"
            else:
                yield from _lost(value, returned[key], f"{path}.{key}")
    elif isinstance(sent, list) and isinstance(returned, list):
        for i, (a, b) in enumerate(zip(sent, returned, strict=True)):
            yield from _lost(a, b, f"{path}.{i}")
