-- Run once, on an empty data folder. The database "dagster" is made by the image itself.
CREATE DATABASE mlflow;
