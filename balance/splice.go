package balance

import (
	"io"
	"net"
	"sync"
)

// splice copies both ways until both are done. The end of one direction is
// passed on as such: the other may still have much to say.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { half(a, b) })
	half(b, a)
	wg.Wait()
}

func half(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if c, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = c.CloseWrite()
		return
	}
	to.Close() // one broken end: nothing more comes of this connection
	from.Close()
}
