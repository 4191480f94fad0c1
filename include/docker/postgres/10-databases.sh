#!/bin/sh
# One database and one role for each part, run by the PostgreSQL image when its volume is new.
set -e

database() {
  psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set "name=$1" <<SQL
\getenv password $2
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

database airflow AIRFLOW_DB_PASSWORD
database mlflow MLFLOW_DB_PASSWORD
database inspectline CATALOGUE_DB_PASSWORD
