"""Where things are kept and which servers are used: from the environment (`STOCKPOT_*`) and `.env`. Changes no result."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once at the edge (flows, command line) and handed on as plain values."""

    model_config = SettingsConfigDict(env_prefix="STOCKPOT_", env_file=".env", extra="ignore", frozen=True)

    store: str = Field(default=".stockpot", description="folder or s3:// prefix for promotions/ and ckpt/")
    profile: str = Field(default="laptop", description="runtime profile: a name in infra/profiles/ or a path")
    home: Path = Field(default=Path(".stockpot"), description="this checkout's scratch: run workspaces, local MLflow store, logs")
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="port of the Prefect server of `make ui`, on loopback")
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="port of the MLflow server of `make ui`, on loopback")
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI", description="MLflow server; default: SQLite file in the home folder")
