// Package job runs pods to completion.
package job
