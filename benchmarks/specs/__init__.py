"""The words of the project as frozen pydantic models, one kind a file, and how they are read from YAML."""
