// Package notify tells the init system that started a program how it is doing,
// as systemd's Type=notify asks for.
//
// Job: one datagram to the socket that the environment names. Not its job:
// knowing when a program is ready. Invariant: without such a socket nothing
// happens, so that a program may always say it.
package notify

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// Ready says that the program serves.
func Ready() error { return send("READY=1") }

// Stopping says that the program is about to end.
func Stopping() error { return send("STOPPING=1") }

func send(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + name // an abstract address
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		conn.Close()
	}
	if err != nil {
		return fmt.Errorf("notify the init system: %w", err)
	}
	return nil
}
