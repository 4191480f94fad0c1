"""The domain of Inspectline, without Airflow, Flask or Streamlit: plain functions over plain data."""
