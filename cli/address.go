package cli

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
)

// outboundIP is the address by which other machines reach this one: of the link
// that the default route takes, else the first that is not loopback's.
func outboundIP(log *slog.Logger) netip.Addr {
	routes, err := os.Open("/proc/net/route")
	if err == nil {
		defer routes.Close()
		if link, err := net.InterfaceByName(defaultLink(routes)); err == nil {
			if addrs, err := link.Addrs(); err == nil {
				if a := firstIPv4(addrs); a.IsValid() {
					return a
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("routes of this machine", "err", err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		log.Warn("addresses of this machine", "err", err)
	}
	return firstIPv4(addrs)
}

// defaultLink names the link of the default route, read as the kernel tells it:
// link, destination, gateway, flags … mask, in lines of hexadecimal columns.
func defaultLink(routes io.Reader) string {
	for lines := bufio.NewScanner(routes); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0]
		}
	}
	return ""
}

func firstIPv4(addrs []net.Addr) netip.Addr {
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
