package image

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// installOnly are packages that others depend on for their installation alone.
var installOnly = []string{
	"base-files", "debconf", "debianutils", "dpkg", "init-system-helpers", "libcap2-bin", "lsb-base", "mawk", "perl-base", "sysvinit-utils", "tar",
}

const nginxConfig = `user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 1024; }
http {
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	access_log /dev/stdout;
	sendfile on;
	keepalive_timeout 65;
	include /etc/nginx/conf.d/*.conf;
}
`

const nginxSite = `server {
	listen 80;
	server_name localhost;
	location / {
		root /usr/share/nginx/html;
		index index.html index.htm;
	}
}
`

// recipes are images that examples everywhere use, made of Debian's packages.
func recipes() map[string]DebOptions {
	return map[string]DebOptions{
		"nginx": {
			// busybox brings the tools that people try in a shell in nginx.
			Packages: []string{"nginx", "bash", "curl", "busybox"},
			Without:  append([]string{"iproute2"}, installOnly...),
			Applets:  "/bin/busybox",
			Entries: []Entry{
				{Path: "/etc/nginx/nginx.conf", Data: []byte(nginxConfig)},
				{Path: "/etc/nginx/conf.d/default.conf", Data: []byte(nginxSite)},
				{Path: "/var/log/nginx", Dir: true},
				{Path: "/var/log/nginx/access.log", Link: "/dev/stdout"},
				{Path: "/var/log/nginx/error.log", Link: "/dev/stderr"},
				{Path: "/var/lib/nginx", Dir: true, UID: 33, GID: 33},
				{Path: "/var/cache/nginx", Dir: true, UID: 33, GID: 33},
			},
			Config: Config{
				Cmd: []string{"nginx", "-g", "daemon off;"}, Ports: []string{"80/tcp"}, StopSignal: "SIGQUIT",
			},
		},
		"busybox": {
			Packages: []string{"busybox"},
			Without:  installOnly,
			Applets:  "/bin/busybox",
			Config:   Config{Cmd: []string{"sh"}},
		},
	}
}

// Recipes returns the names that Recipe knows.
func Recipes() []string { return slices.Sorted(maps.Keys(recipes())) }

// Recipe returns how to make an image that is known by name, a name with any
// tag: nginx, nginx:1.25, docker.io/library/busybox. The packages are the same
// whatever the tag says.
func Recipe(names ...string) (DebOptions, error) {
	full, err := Normalize(names...)
	if err != nil {
		return DebOptions{}, err
	}
	which := ""
	for _, n := range full {
		repository, _, _ := strings.Cut(strings.TrimPrefix(n, "docker.io/library/"), ":")
		if which != "" && repository != which {
			return DebOptions{}, fmt.Errorf("image %s: not the same image as %s", n, which)
		}
		which = repository
	}
	o, ok := recipes()[which]
	if !ok {
		return DebOptions{}, fmt.Errorf("image %s: no recipe; there are %s", which, strings.Join(Recipes(), ", "))
	}
	o.Names = full
	return o, nil
}
