"""The manifests against the schemas that Kubernetes and the Gateway API
publish, strictly: a field that no schema knows is a mistake.

The schemas of Kubernetes come with the Python package kubernetes-validate.
Those of the Gateway API are definitions (CRDs) of their projects: the test
takes them from the folder INFER_CRDS, `crds` beside the models by default,
and is skipped for a kind whose definition is not there."""

import copy
import glob
import os
import re

import pytest
import yaml

from nginx import TOP, models_dir

FOLDER = os.path.join(TOP, "conf-examples", "kubernetes")
CRDS = os.environ.get("INFER_CRDS") or os.path.join(models_dir(), "crds")
# Kubernetes of the years in which a cluster of today was made.
VERSIONS = ("1.30", "1.33", "1.36")
BUILT_IN = re.compile(r"(v1|(apps|policy|autoscaling|batch)/v\w+)$")


def documents():
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.yaml"))):
        with open(path) as file:
            for document in yaml.safe_load_all(file):
                if "kind" in document:          # adapter.yaml has none
                    yield pytest.param(document, id="%s-%s" % (
                        os.path.basename(path), document["kind"]))


DOCUMENTS = list(documents())
OURS = [p for p in DOCUMENTS if BUILT_IN.match(p.values[0]["apiVersion"])]
CUSTOM = [p for p in DOCUMENTS if p not in OURS]


@pytest.fixture(scope="module")
def tool():
    return pytest.importorskip("kubernetes_validate")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", OURS)
def test_kubernetes(tool, document, version):
    tool.validate(document, version, strict=True)


@pytest.mark.parametrize("wrong", ["field", "type", "missing"])
def test_mistakes_are_found(tool, wrong):
    [document] = [copy.deepcopy(p.values[0]) for p in OURS
                  if p.values[0]["kind"] == "Deployment"]
    pod = document["spec"]["template"]["spec"]
    if wrong == "field":
        pod["containers"][0]["readynessProbe"] = {}
    elif wrong == "type":
        pod["terminationGracePeriodSeconds"] = "330 s"
    else:
        del document["spec"]["selector"]
    with pytest.raises(tool.ValidationError):
        tool.validate(document, VERSIONS[-1], strict=True)


def strict(schema):
    """The definition's schema with unknown fields refused."""
    todo = [schema]
    while todo:
        one = todo.pop()
        if "properties" in one and "additionalProperties" not in one:
            one["additionalProperties"] = False
        todo += [value for key in ("properties",)
                 for value in one.get(key, {}).values()]
        todo += [one[key] for key in ("items", "additionalProperties")
                 if isinstance(one.get(key), dict)]
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def definition_of(api_version, kind):
    group, _, version = api_version.partition("/")
    for path in glob.glob(os.path.join(CRDS, "*.yaml")):
        with open(path) as file:
            for found in yaml.safe_load_all(file):
                spec = found["spec"] if found else {"names": {}}
                if spec["names"].get("kind") != kind \
                        or spec["group"] != group:
                    continue
                for one in spec["versions"]:
                    if one["name"] == version:
                        return strict(one["schema"]["openAPIV3Schema"])
    pytest.skip("no definition of %s %s in %s" % (api_version, kind, CRDS))


@pytest.mark.parametrize("document", CUSTOM)
def test_gateway(document):
    jsonschema = pytest.importorskip("jsonschema")
    schema = definition_of(document["apiVersion"], document["kind"])
    jsonschema.validate(document, schema)
    wrong = copy.deepcopy(document)
    wrong["spec"]["unknown"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_pool_fits_the_deployment():
    [pool] = [p.values[0]["spec"] for p in CUSTOM
              if p.values[0]["kind"] == "InferencePool"]
    kinds = {p.values[0]["kind"]: p.values[0] for p in OURS}
    pod = kinds["Deployment"]["spec"]["template"]
    assert pool["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert pool["targetPorts"][0]["number"] \
        == pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert "infer_metrics vllm;" in kinds["ConfigMap"]["data"]["nginx.conf"]
