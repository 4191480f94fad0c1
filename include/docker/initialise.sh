#!/bin/sh
# What must be there before anything else starts; run again, it changes nothing that is as it should be.
set -eu

echo "Airflow's tables"
airflow db migrate

echo "Airflow's administrator"
airflow users create --role Admin --username "$AIRFLOW_ADMIN_USER" --password "$AIRFLOW_ADMIN_PASSWORD" \
  --firstname Inspectline --lastname Administrator --email "$AIRFLOW_ADMIN_EMAIL"
# Whoever changes the password in .env means it, also on a stack that already runs.
airflow users reset-password --username "$AIRFLOW_ADMIN_USER" --password "$AIRFLOW_ADMIN_PASSWORD"

echo "Airflow's pool for training"
airflow pools set gpu "$GPU_SLOTS" "Trainings at the same time: one for each GPU"

echo "the catalogue's tables, and serving's first account"
python -m pipelines.catalogue migrate

echo "the buckets"
python /opt/inspectline/buckets.py "$MLFLOW_BUCKET"
