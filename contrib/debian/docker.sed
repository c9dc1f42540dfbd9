# The completions of ketch as those of docker.
s/_ketch\b/_docker/g
s/__ketch_complete/__docker_complete/
s/^\(#compdef\|complete -F _docker\|complete -c\) ketch/\1 docker/
s/compdef _docker ketch/compdef _docker docker/
