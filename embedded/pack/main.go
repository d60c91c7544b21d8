// Command pack compresses programs from one directory into another, for
// embedded/build.sh: each PROGRAM by itself, each PROGRAM+BASE with the plain
// bytes of BASE as its dictionary. A file whose program did not change is left
// untouched, so that the Go build cache sees no change either, and files of
// programs not named are removed.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/embedded"
)

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: pack FROM-DIRECTORY TO-DIRECTORY PROGRAM[+BASE] …")
	}
	if err := packAll(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatalf("pack: %v", err)
	}
}

func packAll(from, to string, programs []string) error {
	if err := sweep(to, programs); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(2) // a program with its base and tables takes some 300 MB
	for _, program := range programs {
		group.Go(func() error { return packOne(from, to, program) })
	}
	return group.Wait()
}

func packOne(from, to, program string) error {
	name, base, based := strings.Cut(program, "+")
	plain, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	// One goroutine: the block boundaries, and so the bytes, must not depend on
	// how many processors the builder has.
	write := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(embedded.Window)}
	read := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(embedded.Window)}
	if based {
		dictionary, err := os.ReadFile(filepath.Join(from, base))
		if err != nil {
			return err
		}
		write = append(write, zstd.WithEncoderDictRaw(embedded.Dictionary, dictionary))
		read = append(read, zstd.WithDecoderDictRaw(embedded.Dictionary, dictionary))
	}
	target := filepath.Join(to, program+".zst")
	if old, err := os.ReadFile(target); err == nil && unpacks(old, plain, read) {
		fmt.Printf("%-36s %9d bytes, packed %9d, unchanged\n", program, len(plain), len(old))
		return nil
	}
	enc, err := zstd.NewWriter(nil, write...)
	if err != nil {
		return err
	}
	defer enc.Close()
	packed := enc.EncodeAll(plain, nil)
	if err := os.WriteFile(target+".new", packed, 0o644); err != nil {
		return err
	}
	fmt.Printf("%-36s %9d bytes, packed %9d\n", program, len(plain), len(packed))
	return os.Rename(target+".new", target)
}

// unpacks says whether packed is already what plain would be packed to: that is
// quickly seen, while packing is not quickly done.
func unpacks(packed, plain []byte, options []zstd.DOption) bool {
	dec, err := zstd.NewReader(nil, options...)
	if err != nil {
		return false
	}
	defer dec.Close()
	got, err := dec.DecodeAll(packed, nil)
	return err == nil && bytes.Equal(got, plain)
}

// sweep removes packed programs that are not among those asked for.
func sweep(dir string, programs []string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.zst"))
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, p := range programs {
		wanted[p+".zst"] = true
	}
	for _, f := range files {
		if !wanted[filepath.Base(f)] {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}
