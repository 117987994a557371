"""An S3 server for the tests: moto's, with its checks of signatures and rights switched on.

usage: s3_server.py PORT BUCKET CREDENTIALS_FILE
Writes an AWS credentials file for a user that may use S3, then serves until it is killed."""

import json
import os
import sys

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "3"  # what makes the user below; everything later is checked
port, bucket, credentials = int(sys.argv[1]), sys.argv[2], sys.argv[3]

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
server.start()
own = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
iam = boto3.client("iam", aws_access_key_id="x", aws_secret_access_key="y", **own)
iam.create_user(UserName="modelforge")
key = iam.create_access_key(UserName="modelforge")["AccessKey"]
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="modelforge", PolicyName="s3", PolicyDocument=json.dumps(policy))
pair = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
boto3.client("s3", **pair, **own).create_bucket(Bucket=bucket)
with open(credentials + ".new", "w") as file:
    file.write("[default]\nregion = us-east-1\n" + "".join(f"{name} = {value}\n" for name, value in pair.items()))
os.rename(credentials + ".new", credentials)
server._thread.join()
