package nft

import (
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// forceBuffers asks for large socket buffers, beyond the machine's limit where
// the process may.
func forceBuffers(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], bufferSize) != nil {
				if e := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], bufferSize); e != nil {
					failed = e
				}
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}
