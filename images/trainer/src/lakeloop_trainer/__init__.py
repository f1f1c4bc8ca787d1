"""The program in a Lakeloop Spark driver pod."""
