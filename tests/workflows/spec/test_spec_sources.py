"""Inputs, outputs, adapters and URLs: each fault alone is the one problem reported, at its line."""

import pytest
from workspace_sample import INPUT, OTHER_IMAGE, OUTPUT_IMAGE, PIPELINE, TEN_ADAPTERS, URL, check_broken


def url(text):
    return URL, f"      - {text}  # <--\n"


WEIGHTS = "pipeline.data.weights"


def weights(text):
    return "    evalSplit: 0.1\n", f"    weights:\n      {text}  # <--\n"


# What is replaced by what (the bad line ends with `# <--`), the path, and words of the message.
BROKEN = {
    "two inputs": (
        "  input:\n",
        "  input:  # <--\n    image: registry.example.com/data:1\n",
        "tuning.input",
        "Exactly one of URLs, Volume, or Image must be specified",
    ),
    "empty input": (INPUT, "  input: {}  # <--\n", "tuning.input", "Exactly one of URLs, Volume, or Image"),
    "input image": (
        INPUT,
        "  input:\n    image: registry.example.com/Data:1  # <--\n",
        "tuning.input.image",
        "Unable to parse input image reference",
    ),
    "input name": ("  input:\n", "  input:\n    name: A b  # <--\n", "tuning.input.name", "DNS-1123 subdomain"),
    "input secrets": (
        "  input:\n",
        "  input:\n    imagePullSecrets: [x]  # <--\n",
        "tuning.input.imagePullSecrets",
        "is only for images",
    ),
    "an input secret twice": (
        INPUT,
        "  input:\n    image: registry.example.com/data:1\n    imagePullSecrets: [x, z, x]  # <--\n",
        "tuning.input.imagePullSecrets[2]",
        'duplicate Secret "x"',
    ),
    "an empty input secret": (
        INPUT,
        "  input:\n    image: registry.example.com/data:1\n    imagePullSecrets: ['']  # <--\n",
        "tuning.input.imagePullSecrets[0]",
        "must not be empty",
    ),
    "volume kind": (
        INPUT,
        "  input:\n    volumeSource:\n      persistentVolumeClaims: {claimName: x}  # <--\n",
        "tuning.input.volumeSource.persistentVolumeClaims",
        "unknown volume type",
    ),
    "claim": (
        INPUT,
        "  input:\n    volumeSource:\n      persistentVolumeClaim: {}  # <--\n",
        "tuning.input.volumeSource.persistentVolumeClaim",
        "missing field claimName",
    ),
    "two volumes": (
        INPUT,
        "  input:\n    volumeSource: {emptyDir: {}, nfs: {}}  # <--\n",
        "tuning.input.volumeSource",
        "exactly one volume type",
    ),
    "two outputs": (
        "  output:\n",
        "  output:  # <--\n    volumeSource: {persistentVolumeClaim: {claimName: x}}\n",
        "tuning.output",
        "Exactly one of Volume or Image must be specified",
    ),
    "no output": ("  output:\n" + OUTPUT_IMAGE, "  output: {}  # <--\n", "tuning.output", "Exactly one of Volume or"),
    "output image": (
        OUTPUT_IMAGE,
        "    image: registry.example.com/Team/adapter  # <--\n",
        "tuning.output.image",
        "Unable to parse output image reference",
    ),
    "output digest": (
        OUTPUT_IMAGE,
        f"    image: registry.example.com/a@sha256:{'0' * 64}  # <--\n",
        "tuning.output.image",
        "a digest cannot be set",
    ),
    "output placeholder": (
        OUTPUT_IMAGE,
        "    image: <YOUR_IMAGE>  # <--\n",
        "tuning.output.image",
        "is a placeholder",
    ),
    "push secret": (
        OUTPUT_IMAGE,
        OUTPUT_IMAGE + "    imagePushSecret: A_b  # <--\n",
        "tuning.output.imagePushSecret",
        "is not a valid Kubernetes name",
    ),
    "push secret without image": (
        OUTPUT_IMAGE,
        "    volumeSource: {persistentVolumeClaim: {claimName: x}}\n    imagePushSecret: s  # <--\n",
        "tuning.output.imagePushSecret",
        "is only for an image",
    ),
    "adapter without name": (
        "    - source:\n        name: other\n",
        "    - source:  # <--\n",
        "inference.adapters[0].source",
        "Name of Adapter field must be specified",
    ),
    "adapter name": (
        "name: other\n",
        "name: Other  # <--\n",
        "inference.adapters[0].source.name",
        "DNS-1123 subdomain",
    ),
    "adapter named as the tuned one": (
        "name: other\n",
        "name: tuned  # <--\n",
        "inference.adapters[0].source.name",
        "Duplicate adapter source name found: tuned",
    ),
    "adapter named as the base": (
        "name: other\n",
        "name: phi-3-mini-128k-instruct  # <--\n",
        "inference.adapters[0].source.name",
        "is the name of the base model",
    ),
    "adapter urls": (
        OTHER_IMAGE,
        "        urls: [https://x.example/y]  # <--\n",
        "inference.adapters[0].source.urls",
        "URLs are not supported as adapter source",
    ),
    "adapter without source": (
        "    - source:\n        name: other\n" + OTHER_IMAGE,
        "    - strength: '1'  # <--\n",
        "inference.adapters[0].source",
        "missing field",
    ),
    "adapter without image": (
        "    - source:\n        name: other\n" + OTHER_IMAGE,
        "    - source:  # <--\n        name: other\n",
        "inference.adapters[0].source",
        "Either Image or Volume must be specified",
    ),
    "adapter image": (
        OTHER_IMAGE,
        "        image: a.example/B:1  # <--\n",
        "inference.adapters[0].source.image",
        "Unable to parse adapter image reference",
    ),
    "adapter secrets": (
        OTHER_IMAGE,
        OTHER_IMAGE + "        imagePullSecrets: [x, x]  # <--\n",
        "inference.adapters[0].source.imagePullSecrets[1]",
        'duplicate Secret "x"',
    ),
    "strength": (
        OTHER_IMAGE,
        OTHER_IMAGE + "      strength: '0.5'  # <--\n",
        "inference.adapters[0].strength",
        "vLLM does not support adapter strength",
    ),
    "strength out of range": (
        OTHER_IMAGE,
        OTHER_IMAGE + "      strength: '2'  # <--\n",
        "inference.adapters[0].strength",
        "Strength value for Adapter 'other' must be between 0 and 1",
    ),
    "too many adapters": (
        "  adapters:\n",
        "  adapters:  # <--\n" + TEN_ADAPTERS,
        "inference.adapters",
        "maximum of 10 allowed",
    ),
    "adapters of one name": (
        PIPELINE,
        "    - source:\n        name: other  # <--\n" + OTHER_IMAGE + PIPELINE,
        "inference.adapters[1].source.name",
        "Duplicate adapter source name found: other",
    ),
    "URL listed twice": (
        *url("https://data.example.com/train.parquet?download=true\n" + URL.rstrip()),
        "tuning.input.urls[1]",
        "duplicate",
    ),
    "weight of no file": (*weights("trian.parquet: 2"), f"{WEIGHTS}.trian.parquet", "no such file in the data"),
    "weight below 0": (
        *weights("train.parquet: -1"),
        f"{WEIGHTS}.train.parquet",
        "greater than or equal to 0, not -1",
    ),
    "weight above the most": (*weights("train.parquet: 101"), f"{WEIGHTS}.train.parquet", "or equal to 100, not 101"),
    "weight that is no number": (*weights("train.parquet: two"), f"{WEIGHTS}.train.parquet", "must be a number"),
    "weight in quotes": (*weights("train.parquet: '2'"), f"{WEIGHTS}.train.parquet", "must be a number"),
    "weight nan": (*weights("train.parquet: .nan"), f"{WEIGHTS}.train.parquet", ".nan"),
    "weight yes": (*weights("train.parquet: true"), f"{WEIGHTS}.train.parquet", "must be a number"),
    "weights all 0": (
        "    evalSplit: 0.1\n",
        "    weights: {train.parquet: 0}  # <--\n",
        WEIGHTS,
        "all files have weight 0",
    ),
    "weights as a list": (
        "    evalSplit: 0.1\n",
        "    weights: [2]  # <--\n",
        WEIGHTS,
        "must be a mapping",
    ),
    "claim without a name": (
        INPUT,
        "  input:\n    volumeSource:\n      persistentVolumeClaim: {claimName: ''}  # <--\n",
        "tuning.input.volumeSource.persistentVolumeClaim.claimName",
        "must not be empty",
    ),
}

BAD_URLS = {
    "scheme": ("ftp://host/x.parquet", "data source URL must use one of http, https, hf"),
    "path": ("/data/x.parquet", "not 'a bare path'"),
    "keys in s3": ("s3://KEY:SECRET@bucket/x", "contains credentials"),
    "password in abfs": ("abfs://c:k@acct.dfs.core.windows.net/x", "contains credentials"),
    "endpoint in s3": ("'s3://b/x?endpoint_override=h'", "options after ? are not supported"),
    "host in abfs": ("abfs://c@169.254.169.254/x", "not an Azure storage account"),
    "model of the hub": ("hf://org/name", "is not a dataset of the hub"),
    "slice of a split": ("'hf://datasets/o/n?split=train[:9]'", "slices of a split"),
    "checksum of a folder": (f"'s3://b/x/*#sha256={'0' * 64}'", "needs one file"),
    "no host": ("https:///x", "invalid data source URL"),
    "bad port": ("https://a.example:99999/x", "invalid data source URL"),
    "bad brackets": ("'https://[::1/x'", "invalid data source URL"),
    "loopback": ("http://127.0.0.1/x", "loopback, private, or link-local"),
    "loopback in short": ("http://127.1/x", "loopback, private, or link-local"),
    "loopback as number": ("http://2130706433/x", "loopback, private, or link-local"),
    "loopback as hex": ("http://0x7f.1/x", "loopback, private, or link-local"),
    "loopback in v6": ("'http://[::ffff:127.0.0.1]/x'", "loopback, private"),
    "loopback in other digits": ("http://\u2460\u2461\u2466.0.0.1/x", "loopback, private"),
    "loopback in 6to4": ("'http://[2002:7f00:1::]/x'", "loopback, private"),
    "private in nat64": ("'http://[64:ff9b::a00:1]/x'", "loopback, private"),
    "metadata of oracle": ("http://192.0.0.192/x", "local or metadata endpoint"),
    "private": ("http://10.1.2.3/x", "loopback, private, or link-local"),
    "carrier": ("http://100.64.0.1/x", "loopback, private, or link-local"),
    "metadata": ("http://169.254.169.254/x", "local or metadata endpoint"),
    "wire server": ("http://168.63.129.16/x", "local or metadata endpoint"),
    "alibaba's metadata": ("http://100.100.100.200/x", "local or metadata endpoint"),
    "site-local": ("'http://[fec0::1]/x'", "loopback, private, or link-local"),
    "compatible": ("'http://[::127.0.0.1]/x'", "loopback, private, or link-local"),
    "local nat64": ("'http://[64:ff9b:1::808:808]/x'", "loopback, private"),
    "metadata name": ("http://metadata.google.internal/x", "metadata endpoint"),
    "localhost": ("http://LOCALHOST./x", "local or metadata endpoint"),
    "service": ("http://minio.default.svc/x", "local or metadata endpoint"),
    "bare name": ("http://minio/x", "local or metadata endpoint"),
    "checksum": ("https://a.example/x#sha256=12ab", "is not a checksum"),
    "fragment": ("https://a.example/x#top", "is not a checksum"),
    "excel": ("https://a.example/x.xlsx?v=1", "files of the type .xlsx cannot be read"),
    "compressed text": ("https://a.example/x.txt.gz", "files of the type .txt cannot be read"),
    "password": ("https://me:pw@a.example/x", "contains a user or password"),
}
"""Text of the URL in YAML, and words of the message."""


@pytest.mark.parametrize(("old", "new", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_invalid_source_is_the_only_problem_at_its_line(tmp_path, old, new, path, words):
    check_broken(tmp_path, old, new, path, words)


@pytest.mark.parametrize(("text", "words"), BAD_URLS.values(), ids=BAD_URLS)
def test_invalid_url_is_the_only_problem_at_its_line(tmp_path, text, words):
    check_broken(tmp_path, *url(text), "tuning.input.urls[0]", words)
