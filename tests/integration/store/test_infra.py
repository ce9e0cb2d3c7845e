"""The shipped bucket settings are what a server takes."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from servers import S3Server, moto_server  # noqa: F401

INFRA = Path(__file__).parents[3] / "infra" / "s3"


@pytest.mark.usefixtures("moto_server")
def test_lifecycle_and_policy_are_accepted(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    client = boto3.client("s3", endpoint_url=moto_server.endpoint, region_name="us-east-1")
    rules = json.loads((INFRA / "lifecycle.json").read_text())
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    stored = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert stored[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    policy = (INFRA / "policy-reader.json").read_text().replace("BUCKET", bucket).replace("PREFIX", "models")
    client.put_bucket_policy(Bucket=bucket, Policy=policy)
    actions = [
        a for s in json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] for a in s["Action"]
    ]
    assert not any("Put" in action or "Delete" in action for action in actions)
