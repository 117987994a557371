#!/usr/bin/env bash
# Where a job's model and rows come from: folders of its tenant, https://, s3:// and a model hub, under a worker; what it
# may not read; and what the attempt's record says of them.
. "$(dirname "${BASH_SOURCE[0]}")/support.sh"

[[ -x $real_trainer ]] || fail "no $real_trainer"
[[ -n ${MF_TEST_PYTHON:-} ]] || {
  echo "skipped: MF_TEST_PYTHON is not set"
  exit 77
}
unset "${!AWS_@}" "${!HF_@}" TRANSFORMERS_OFFLINE
export AWS_SHARED_CREDENTIALS_FILE=$work/credentials AWS_CONFIG_FILE=$work/none HF_HOME=$work/home HF_TOKEN=hf_good
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
s3_port=$(free_port) web_port=$(free_port) hub_port=$(free_port)
until [[ $web_port != "$s3_port" && $hub_port != "$s3_port" && $hub_port != "$web_port" && $((hub_port + 1)) != "$s3_port" &&
  $((hub_port + 1)) != "$web_port" ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$((hub_port + 1))") 2>/dev/null; do
  hub_port=$(free_port) web_port=$(free_port)
done
"$MF_TEST_PYTHON" tests/integration/s3_server.py "$s3_port" sets "$work/credentials" >>"$work/s3.log" 2>&1 &
worker_pids+=("$!")
python3 tests/integration/hub_server.py "$hub_port" tests/golden/models/tied-gqa "$work/hub.log" 2>>"$work/hub.err" &
worker_pids+=("$!")
export HF_ENDPOINT=http://127.0.0.1:$hub_port

# ---- a server of https:// with a certificate of its own
mkdir -p "$work/web/sets" "$work/mine" "$work/yours"
for ((i = 1; i <= 40; i++)); do printf '{"prompt": "question %d", "completion": " answer %d"}\n' "$i" "$i"; done >"$work/mine/rows.jsonl"
cp "$work/mine/rows.jsonl" "$work/yours/rows.jsonl"
gzip -c "$work/mine/rows.jsonl" >"$work/web/sets/rows.jsonl.gz"
head -c 100 "$work/mine/rows.jsonl" >"$work/web/other.jsonl"
cp -r tests/golden/models/tied-gqa "$work/mine/model"
ln -s "$work/yours/rows.jsonl" "$work/mine/link.jsonl"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key.pem" -out "$work/ca.pem" -days 2 -subj /CN=127.0.0.1 \
  -addext subjectAltName=IP:127.0.0.1 2>/dev/null
python3 - "$web_port" "$work" <<'PYTHON' >>"$work/web.log" 2>&1 &
import functools, http.server, ssl, sys
port, work = int(sys.argv[1]), sys.argv[2]
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/sets/away"):
            self.send_response(302)
            self.send_header("Location", "https://127.0.0.1:%d/other.jsonl" % port)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        super().do_GET()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{work}/ca.pem", f"{work}/key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=f"{work}/web"))
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON
worker_pids+=("$!")
web=https://127.0.0.1:$web_port

set_up
write_config "$work/worker.conf" trainer.path="$real_trainer" worker.slots=2 storage.s3_endpoint="http://127.0.0.1:$s3_port" \
  download.ca_file="$work/ca.pem" "tenants=$requests=*" \
  "tenants.roots=default=$work/mine,$web/sets,s3://sets/default,hf://org;*=$work/common"
start_worker "$work/worker.conf" "$work/worker.log"
wait_for 30 "the S3 server" test -s "$work/credentials"
"$MF_TEST_PYTHON" -c 'import boto3,sys; boto3.client("s3", endpoint_url=sys.argv[1]).upload_file(sys.argv[2], "sets", "default/rows.jsonl")' \
  "http://127.0.0.1:$s3_port" "$work/mine/rows.jsonl"

train() { # REQUEST_ID MODEL DATASET [NAME=VALUE]...
  submit "$1" device=cpu max_steps=5 model_name="$2" dataset="$3" "${@:4}"
}
record() { sql "SELECT $2 FROM job_attempts JOIN jobs ON id = job_id WHERE request_id = '$1'"; }
sha_of() { sha256sum <"$1" | cut -d' ' -f1; }
model=$work/mine/model
train folder "$model" "$work/mine/rows.jsonl"
train web "$model" "$web/sets/rows.jsonl.gz"
train bucket "$model" s3://sets/default/rows.jsonl
train hub hf://org/tiny "$work/mine/rows.jsonl"
train tag org/tiny "$work/mine/rows.jsonl" revision=v1
for id in folder web bucket hub tag; do wait_state 60 "$id" succeeded; done
for id in folder bucket hub tag; do
  [[ $(record "$id" "encode(dataset_sha256, 'hex')") == "$(sha_of "$work/mine/rows.jsonl")" ]] || fail "$id: the rows' sha256"
done
[[ $(record web "encode(dataset_sha256, 'hex')") == "$(sha_of "$work/web/sets/rows.jsonl.gz")" ]] || fail "web: the rows' sha256"
passed "rows of a folder, of https:// and of s3://, with the sha256 of what was read"
[[ $(record hub base_revision) == "$(printf 'org/tiny main' | sha1sum | cut -d' ' -f1)" ]] || fail "hub: $(record hub base_revision)"
[[ $(record tag base_revision) == "$(printf 'org/tiny v1' | sha1sum | cut -d' ' -f1)" ]] || fail "tag: $(record tag base_revision)"
[[ -z $(record folder base_revision) ]] || fail "a folder has a revision"
[[ $(record folder resumed_from_step) == 0 ]] || fail "a job without a checkpoint does not say that it began at step 0"
passed "a hub's model is trained, and the record names its commit"

# refused REQUEST_ID CODE TEXT
refused() {
  wait_state 60 "$1" failed
  sql_is "$2|$3" "SELECT error_code, error_message FROM jobs WHERE request_id = '$1'" ||
    fail "$1: $(sql "SELECT error_code, error_message FROM jobs WHERE request_id = '$1'")"
}
not_yours="is not among what this worker lets this tenant read (tenants.roots)"
train other-folder "$model" "$work/yours/rows.jsonl"
train by-link "$model" "$work/mine/link.jsonl"
train up "$model" "$work/mine/../yours/rows.jsonl"
train other-prefix "$model" s3://sets/team-b/rows.jsonl
train other-path "$model" "$web/other.jsonl"
train redirected "$model" "$web/sets/away"
train plain "$model" "http://127.0.0.1:$web_port/sets/rows.jsonl.gz"
train none "$model" "$web/sets/none.jsonl"
train no-key "$model" s3://sets/default/none.jsonl
train other-model "$PWD/tests/golden/models/tied-gqa" "$work/mine/rows.jsonl"
train other-hub hf://elsewhere/tiny "$work/mine/rows.jsonl"
submit other-tenant tenant=team-b device=cpu max_steps=5 model_name="$model" dataset="$work/mine/rows.jsonl"
refused other-folder dataset_forbidden "DatasetError: dataset: $work/yours/rows.jsonl $not_yours"
refused by-link dataset_forbidden "DatasetError: dataset: $work/mine/link.jsonl $not_yours"
refused up dataset_forbidden "DatasetError: dataset: $work/mine/../yours/rows.jsonl $not_yours"
refused other-prefix dataset_forbidden "DatasetError: dataset: s3://sets/team-b/rows.jsonl $not_yours"
refused other-path dataset_forbidden "DatasetError: dataset: $web/other.jsonl $not_yours"
refused redirected dataset_forbidden "DatasetError: dataset: $web/sets/away: dataset: $web/other.jsonl $not_yours"
refused plain dataset_not_found "DatasetError: dataset: 'http://127.0.0.1:$web_port/sets/rows.jsonl.gz' is neither a path nor https:// or s3://, which can be fetched"
refused none dataset_not_found "DatasetError: dataset: $web/sets/none.jsonl: GET $web: the server answered 404"
refused no-key dataset_not_found "DatasetError: dataset: there is no s3://sets/default/none.jsonl"
refused other-model model_forbidden "ModelAccessError: model_name: $PWD/tests/golden/models/tied-gqa: its folder $not_yours"
refused other-hub model_forbidden "ModelAccessError: model_name: hf://elsewhere/tiny: the model hub $not_yours"
refused other-tenant model_forbidden "ModelAccessError: model_name: $model: its folder $not_yours"
passed "what lies outside of a tenant's roots is refused, by links, redirects and ways up, too"
[[ -z $(ls -A "$work/worker/runs" 2>/dev/null) ]] || fail "a download is left in an attempt's folder"
! grep -rqF hf_good "$work"/*.log || fail "the token is in a log"
! pg_dump -d "$database_url" | grep -qE "hf_good|$(sed -n 's/^aws_secret_access_key = //p' "$work/credentials")" || fail "a secret is in the database"
passed "no token and no key in logs or database"
stop_worker "$worker_pid"
echo "$checks checks passed"
