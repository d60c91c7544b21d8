package authn

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"os"

	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/watchfile"
)

// Follow makes a file's certificates, together with those to keep, the
// authorities whenever the file changes, until ctx ends; changed is called
// afterwards. A file without certificates changes nothing and is logged.
func (p *Pool) Follow(ctx context.Context, file string, keep []*x509.Certificate, changed func(), log *slog.Logger) error {
	have := pki.EncodeCerts(p.Certs()...)
	return watchfile.Run(ctx, func() {
		text, err := os.ReadFile(file)
		if err != nil {
			return // gone for a moment
		}
		certs, err := pki.DecodeCerts(text)
		if err != nil || len(certs) == 0 {
			log.Error("authorities not taken", "file", file, "err", err)
			return
		}
		certs = append(certs[:len(certs):len(certs)], keep...)
		if now := pki.EncodeCerts(certs...); !bytes.Equal(now, have) {
			have = now
			p.Set(certs...)
			log.Info("authorities taken", "file", file, "certificates", len(certs))
			changed()
		}
	}, file)
}
