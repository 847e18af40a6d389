# The operator's image for people who have Docker; `make images` makes the same one without.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev gcc make
WORKDIR /src
COPY . .
# The toolchain of the image is the pinned one; nothing else is to be fetched.
RUN rm -f rust-toolchain.toml && cargo build --profile dist --locked --bin perennial

FROM scratch
COPY --from=build /src/target/dist/perennial /bin/perennial
USER 65532:65532
ENTRYPOINT ["/bin/perennial"]
