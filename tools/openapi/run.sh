#!/bin/sh
# Generates the definitions of all API types and packs them into apiserver/openapi/schemas.
set -eu
cd "$(dirname "$0")"
mkdir -p generated
printf 'package generated\n' > generated/doc.go
packages=$(sed -n 's/^[^"]*"\(k8s.io\/\(api\|kube-aggregator\/pkg\/apis\|apiextensions-apiserver\/pkg\/apis\)\/[^"]*\)"$/\1/p' ../../api/scheme.go)
go run k8s.io/kube-openapi/cmd/openapi-gen \
	--go-header-file /dev/null --report-filename /dev/null \
	--output-dir generated --output-pkg github.com/sampan-dev/sampan/tools/openapi/generated --output-file definitions.go \
	$packages k8s.io/api/apidiscovery/v2 \
	k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/apis/meta/v1beta1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version \
	k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr
go run . ../../apiserver/openapi/schemas
rm -r generated
