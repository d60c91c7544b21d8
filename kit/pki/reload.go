package pki

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
)

// Reloaded gives the certificate and key in two files, and reads them again when
// they have changed. While they do not fit together, as between the writing of
// one and the other, it goes on with those it has.
func Reloaded(certFile, keyFile string) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var pair *tls.Certificate
	var seen [2]string
	return func() (*tls.Certificate, error) {
		now := [2]string{version(certFile), version(keyFile)}
		mu.Lock()
		defer mu.Unlock()
		if pair != nil && now == seen {
			return pair, nil
		}
		next, err := tls.LoadX509KeyPair(certFile, keyFile)
		switch {
		case err == nil:
			pair, seen = &next, now
		case pair == nil:
			return nil, fmt.Errorf("pki: %w", err)
		}
		return pair, nil
	}
}

// version tells a file's contents apart without reading it.
func version(name string) string {
	st, err := os.Stat(name)
	if err != nil {
		return ""
	}
	return fmt.Sprint(st.Size(), st.ModTime().UnixNano())
}
