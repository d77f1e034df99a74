# Fine-tuning: one image for all methods.
ARG BASE
FROM ${BASE}
COPY code /opt/code
ENTRYPOINT ["tini", "-s", "-g", "--", "python", "-m", "pretrain_bench.methods.stage", "finetune"]
