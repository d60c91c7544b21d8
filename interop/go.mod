module github.com/sampan-dev/sampan/interop

go 1.26
