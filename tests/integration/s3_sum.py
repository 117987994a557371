"""The outside witness of what lies in a bucket: the sha256 that sha256sum would print of a stored object.

usage: s3_sum.py ENDPOINT s3://BUCKET/KEY   (credentials from AWS' usual places)
Prints the digest and the size of the object, or of the folder of objects below it."""

import hashlib
import sys

import boto3

endpoint, uri = sys.argv[1:]
bucket, key = uri.removeprefix("s3://").split("/", 1)
s3 = boto3.client("s3", endpoint_url=endpoint)
pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
names = sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))
bodies = {name: s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}
if names == [key]:
    digest = hashlib.sha256(bodies[key]).hexdigest()
else:
    lines = [f"{hashlib.sha256(bodies[name]).hexdigest()}  {name[len(key) + 1:]}\n" for name in names]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
print(digest, sum(map(len, bodies.values())))
