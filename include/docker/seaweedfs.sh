#!/bin/sh
# SeaweedFS as an S3 server with three identities from the environment: the pipeline may do everything, MLflow
# everything in its own bucket, and serving read images and write those it was sent, but create and remove no bucket.
set -eu
umask 077

identity() { # name, access key, secret key, actions
  printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' "$@"
}

config=${S3_CONFIG:-/tmp/s3.json}
cat >"$config" <<JSON
{"identities": [
  $(identity pipeline "$S3_ACCESS_KEY_ID" "$S3_SECRET_ACCESS_KEY" '"Admin"'),
  $(identity mlflow "$MLFLOW_S3_ACCESS_KEY_ID" "$MLFLOW_S3_SECRET_ACCESS_KEY" \
    "\"Read:$MLFLOW_BUCKET\", \"Write:$MLFLOW_BUCKET\", \"List:$MLFLOW_BUCKET\", \"Tagging:$MLFLOW_BUCKET\""),
  $(identity serving "$SERVING_S3_ACCESS_KEY_ID" "$SERVING_S3_SECRET_ACCESS_KEY" '"Read", "Write", "List"')
]}
JSON

# The master remembers its address: by name, since a container's number changes. Volumes of 1 GB suit one machine.
exec weed -logtostderr=true server -dir=/data -ip=s3 -ip.bind=0.0.0.0 \
  -master.volumeSizeLimitMB=1024 -volume.max=0 -filer -s3 -s3.port="$S3_PORT" -s3.config="$config"
