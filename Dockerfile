# The server as an image, without torch. Build:  docker build -t variseq .
# Run, with an exported model and a file of keys (both read-only) and a volume for the events:
#   docker run -p 8000:8000 -v ./export:/model:ro -v ./keys.yaml:/keys.yaml:ro -v events:/data variseq
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY variseq variseq
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/variseq \
    && for wheel in /wheels/*.whl; do \
    /opt/variseq/bin/python -m pip install --no-cache-dir -c constraints.txt "${wheel}[serve,index,redis]"; \
    done

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home variseq
COPY --from=build /opt/variseq /opt/variseq
ENV PATH=/opt/variseq/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["variseq", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--keys", "/keys.yaml"]
