#!/bin/sh
# Builds ferretdb here, with the Go that it needs, whichever is installed: as a module, which loses
# the permissions and some names of its files.
set -eu
export GOFLAGS=-modcacherw GOTOOLCHAIN=local
version="v0.0.1-go1.22.12.$(go env GOOS)-$(go env GOARCH)"
(cd / && go mod download "golang.org/toolchain@$version")
toolchain="$(go env GOMODCACHE)/golang.org/toolchain@$version"
chmod -R u+wx "$toolchain/bin" "$toolchain/pkg/tool"
find "$toolchain/src" -name _go.mod | while read -r file; do
    chmod u+w "$(dirname "$file")"
    mv "$file" "$(dirname "$file")/go.mod"
done
exec env GOROOT="$toolchain" "$toolchain/bin/go" build -trimpath -o ferretdb .
