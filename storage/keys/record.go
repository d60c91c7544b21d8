package keys

import (
	"fmt"
	"net/http"
	"time"
)

// Node is how the API shows a key or a directory.
type Node struct {
	Key           string     `json:"key,omitempty"`
	Value         *string    `json:"value,omitempty"`
	Dir           bool       `json:"dir,omitempty"`
	Expiration    *time.Time `json:"expiration,omitempty"`
	TTL           int64      `json:"ttl,omitempty"`
	Nodes         []*Node    `json:"nodes,omitempty"`
	ModifiedIndex uint64     `json:"modifiedIndex,omitempty"`
	CreatedIndex  uint64     `json:"createdIndex,omitempty"`
}

// Event is what happened, or what was read.
type Event struct {
	Action   string `json:"action"`
	Node     *Node  `json:"node,omitempty"`
	PrevNode *Node  `json:"prevNode,omitempty"`
	Refresh  bool   `json:"refresh,omitempty"`

	index uint64 // the store's, when this was answered
}

// created says whether the answer's status is 201.
func (e *Event) created() bool {
	return e.Action == "create" || e.Action == "set" && e.PrevNode == nil
}

// record is a node as it is kept.
type record struct {
	Value    string `json:"v,omitempty"`
	Dir      bool   `json:"d,omitempty"`
	Created  uint64 `json:"c"`
	Modified uint64 `json:"m"`
	Expires  int64  `json:"x,omitempty"` // nanoseconds since 1970; 0 is never
}

// show is the record as the API shows it at a moment.
func (r *record) show(key string, now time.Time) *Node {
	n := &Node{Key: key, Dir: r.Dir, ModifiedIndex: r.Modified, CreatedIndex: r.Created}
	if !r.Dir {
		n.Value = &r.Value
	}
	n.Expiration, n.TTL = ttl(r.Expires, now)
	return n
}

// ttl is a time of expiry, and the seconds until then, rounded up.
func ttl(expires int64, now time.Time) (*time.Time, int64) {
	if expires == 0 {
		return nil, 0
	}
	at := time.Unix(0, expires).UTC()
	left := at.Sub(now)
	seconds := int64(left / time.Second)
	if left%time.Second > 0 {
		seconds++
	}
	return &at, seconds
}

// Error is an error of the API.
type Error struct {
	Code    int    `json:"errorCode"`
	Message string `json:"message"`
	Cause   string `json:"cause,omitempty"`
	Index   uint64 `json:"index"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Cause) }

// The API's error codes.
const (
	codeNotFound     = 100
	codeTestFailed   = 101
	codeNotFile      = 102
	codeNotDir       = 104
	codeExists       = 105
	codeRootReadOnly = 107
	codeNotEmpty     = 108
	codeUnauthorized = 110
	codePrevValue    = 201
	codeTTL          = 202
	codeIndex        = 203
	codeField        = 209
	codeForm         = 210
	codeRefreshValue = 211
	codeRefreshTTL   = 212
	codeRaft         = 300
	codeElection     = 301
	codeCleared      = 401
)

// kind is what an error code says, and its HTTP status.
func kind(code int) (string, int) {
	switch code {
	case codeNotFound:
		return "Key not found", http.StatusNotFound
	case codeTestFailed:
		return "Compare failed", http.StatusPreconditionFailed
	case codeNotFile:
		return "Not a file", http.StatusForbidden
	case codeNotDir:
		return "Not a directory", http.StatusBadRequest
	case codeExists:
		return "Key already exists", http.StatusPreconditionFailed
	case codeRootReadOnly:
		return "Root is read only", http.StatusBadRequest
	case codeNotEmpty:
		return "Directory not empty", http.StatusForbidden
	case codeUnauthorized:
		return "The request requires user authentication", http.StatusUnauthorized
	case codePrevValue:
		return "PrevValue is Required in POST form", http.StatusBadRequest
	case codeTTL:
		return "The given TTL in POST form is not a number", http.StatusBadRequest
	case codeIndex:
		return "The given index in POST form is not a number", http.StatusBadRequest
	case codeField:
		return "Invalid field", http.StatusBadRequest
	case codeForm:
		return "Invalid POST form", http.StatusBadRequest
	case codeRefreshValue:
		return "Value provided on refresh", http.StatusBadRequest
	case codeRefreshTTL:
		return "A TTL must be provided on refresh", http.StatusBadRequest
	case codeElection:
		return "During Leader Election", http.StatusInternalServerError
	case codeCleared:
		return "The event in requested index is outdated and cleared", http.StatusBadRequest
	}
	return "Raft Internal Error", http.StatusInternalServerError
}

func fail(code int, cause string, index uint64) *Error {
	message, _ := kind(code)
	return &Error{Code: code, Message: message, Cause: cause, Index: index}
}
