#!/bin/sh
# One database and one role for each part. The PostgreSQL image runs this when its volume is new; after passwords were
# changed in .env: docker compose up -d postgres; docker compose exec postgres /docker-entrypoint-initdb.d/10-databases.sh
set -e

database() { # name, variable that holds the password
  psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set "name=$1" <<SQL
\getenv password $2
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

database airflow AIRFLOW_DB_PASSWORD
database mlflow MLFLOW_DB_PASSWORD
database inspectline CATALOGUE_DB_PASSWORD
