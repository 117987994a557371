#!/usr/bin/env bash
# The S3 client by itself against a real server that checks every signature, straight and through broken connections.
# MF_TEST_S3_ENDPOINT and MF_TEST_S3_BUCKET name another server, with its keys in AWS_ACCESS_KEY_ID and
# AWS_SECRET_ACCESS_KEY.
set -euo pipefail
: "${MF_TEST_BUILD:?the build folder}"
[[ -n ${MF_TEST_S3_ENDPOINT:-} || -n ${MF_TEST_PYTHON:-} ]] || {
  echo "skipped: MF_TEST_PYTHON is not set"
  exit 77
}
work=$(mktemp -d "${TMPDIR:-/tmp}/mf_s3.XXXXXX")
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || :; rm -rf "$work"' EXIT
if [[ -z ${MF_TEST_S3_ENDPOINT:-} ]]; then
  unset "${!AWS_@}"
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  "$MF_TEST_PYTHON" tests/integration/s3_server.py "$port" modelforge-test "$work/credentials" >"$work/log" 2>&1 &
  server=$!
  for ((i = 0; ; i++)); do
    [[ ! -s $work/credentials ]] || break
    ((i < 300)) || { tail -n 20 "$work/log" >&2 && exit 1; }
    sleep 0.1
  done
  key_of() { sed -n "s/^$1 = //p" "$work/credentials"; }
  export MF_TEST_S3_ENDPOINT=http://127.0.0.1:$port MF_TEST_S3_BUCKET=modelforge-test
  AWS_ACCESS_KEY_ID=$(key_of aws_access_key_id) AWS_SECRET_ACCESS_KEY=$(key_of aws_secret_access_key)
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
fi
export AWS_CONFIG_FILE=$work/none
"$MF_TEST_BUILD/tests/common/test_s3"
