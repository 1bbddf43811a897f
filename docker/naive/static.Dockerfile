FROM nginx:1.30
COPY public /usr/share/nginx/html
EXPOSE 80
