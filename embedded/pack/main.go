// Command pack compresses every file of one directory into another, for
// embedded/build.sh. A file whose bytes would not change is left untouched, so
// that the Go build cache sees no change either.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: pack FROM-DIRECTORY TO-DIRECTORY")
	}
	if err := packAll(os.Args[1], os.Args[2]); err != nil {
		log.Fatalf("pack: %v", err)
	}
}

func packAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	// One goroutine: the block boundaries, and so the bytes, must not depend on
	// how many processors the builder has.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	defer enc.Close()
	for _, e := range entries {
		plain, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		packed := enc.EncodeAll(plain, nil)
		target := filepath.Join(to, e.Name()+".zst")
		if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, packed) {
			fmt.Printf("%-16s %9d bytes, packed %9d, unchanged\n", e.Name(), len(plain), len(packed))
			continue
		}
		if err := os.WriteFile(target+".new", packed, 0o644); err != nil {
			return err
		}
		if err := os.Rename(target+".new", target); err != nil {
			return err
		}
		fmt.Printf("%-16s %9d bytes, packed %9d\n", e.Name(), len(plain), len(packed))
	}
	return nil
}
